# SPDX-License-Identifier: Apache-2.0
"""Which modules are simulated: their sources, their parameters, what their benches must have covered."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Operator:
    """One module and its bench ``sim/bench_NAME.py``.

    ``uses``: modules below it; sources are rtl/MODULE.sv of both. ``variants``: parameter sets to build and run
    apart from the default one. ``least``: values that the bench compares in all, at least. ``cases``: what it must
    say that it covered. ``top``: a wrapper in sim/wrappers instead of the module itself.
    """

    name: str
    uses: tuple[str, ...] = ()
    variants: tuple[dict[str, int], ...] = ({},)
    least: int = 1
    cases: tuple[str, ...] = ()
    illegal: tuple[tuple[dict[str, int], str], ...] = field(default=())  # parameters, text of the message


OPERATORS = (
    Operator(
        "requantise",
        uses=("rounding_shift",),
        variants=({}, {"LANES": 3}),
        least=20_000,
        cases=("idle", "back-pressure", "saturation low", "saturation high"),
        illegal=(({"LANES": 0}, "LANES = 0 must be at least 1"),),
    ),
)
BY_NAME = {operator.name: operator for operator in OPERATORS}
