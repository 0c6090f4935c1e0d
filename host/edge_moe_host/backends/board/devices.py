# SPDX-License-Identifier: Apache-2.0
"""Which device of pynq a bundle runs on, and which bitstream is loaded into it."""

import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from edge_moe_host.backends.board.driver import pynq
from edge_moe_host.contract.bundle import Bundle
from edge_moe_host.contract.registers import INTERRUPTS
from edge_moe_host.errors import BackendError, DeviceError
from edge_moe_host.files import kind

DEVICE_VARIABLE = "EDGE_MOE_DEVICE"  # a Python file with open_device(bundle), such as the simulated board's
CALL_SECONDS = 60.0  # limit of one call over the network; sending a bitstream takes longest
_BUILD = Path(__file__).parents[4] / "build" / "board"


def choose_device(bundle: Bundle, device: Any, address: str | None) -> tuple[Any, Callable[[], None]]:
    """The device, and a function that releases it.

    The first of: ``device``, the board at ``address``, what ``EDGE_MOE_DEVICE`` names, what pynq finds.
    """
    if device is not None:
        return device, lambda: None  # it belongs to the caller
    if address is not None:
        before = vars(pynq.Device).get("_active_device")
        device = remote_device(address)
        return device, functools.partial(_disconnect, device, before)
    if os.environ.get(DEVICE_VARIABLE):
        device = _device_of_file(Path(os.environ[DEVICE_VARIABLE]), bundle)
        return device, device.close
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynq warns of what is raised below
        try:
            found = pynq.Device.active_device
        except RuntimeError:
            raise DeviceError(
                "pynq finds no device here: run this on the board, give its address=, or let "
                f"{DEVICE_VARIABLE} name board/zcu104/simulated.py for a simulated one."
            ) from None
    if found.has_capability("REMOTE"):
        bound_calls(found)
    return found, lambda: None


def remote_device(address: str) -> Any:
    """The board that PYNQ.remote serves at ``address``, HOST or HOST:PORT.

    It becomes pynq's active device: whichever device pynq downloads to, it sets the ports of the active one.
    """
    try:
        from pynq.pl_server.remote_device import (  # type: ignore[import-not-found]
            PYNQ_PORT,
            RemoteDevice,
        )
    except ImportError:
        raise BackendError(
            f"pynq {pynq.__version__} has no PYNQ.remote: address= needs pynq 3.1 or later, with grpcio."
        ) from None

    host, _, port = address.partition(":")
    try:
        device = RemoteDevice(ip_addr=host, port=int(port or PYNQ_PORT), tag=f"remote_{address}_{{}}")
    except Exception as error:  # RuntimeError, gRPC's own, or a port that is not a number
        raise DeviceError(
            f"the board at '{address}' does not answer: {error}; is it on, and does it run PYNQ.remote?"
        ) from None
    bound_calls(device)
    _forget_clocks()
    pynq.Device.active_device = device
    return device


def _forget_clocks() -> None:
    """Make pynq choose its clocks anew: otherwise it always sets those of the first device it used."""
    if "_real_instance" in vars(pynq.Clocks):
        del pynq.Clocks._real_instance


def _disconnect(device: Any, before: Any) -> None:
    """Close the connection and make ``before`` pynq's active device again; None lets pynq find one."""
    device.client.channel.close()
    _forget_clocks()
    if vars(pynq.Device).get("_active_device") is device:
        if before is None:
            del pynq.Device._active_device
        else:
            pynq.Device.active_device = before


def bound_calls(device: Any) -> None:
    """Limit the time of every call to a remote device: pynq waits for ever for a board that is gone."""
    for stub in device._stub.values():
        for name, call in vars(stub).items():
            if not isinstance(call, functools.partial):
                setattr(stub, name, functools.partial(call, timeout=CALL_SECONDS))


def _device_of_file(path: Path, bundle: Bundle) -> Any:
    if kind(path) != "file":
        raise BackendError(f"{DEVICE_VARIABLE} names '{path}', which is not a file.")
    name = path.stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        folder = str(path.resolve().parent)
        sys.path.insert(0, folder)  # for the modules beside it
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        finally:
            sys.path.remove(folder)
    try:
        return sys.modules[name].open_device(bundle)
    except AttributeError:
        raise BackendError(f"'{path}', which {DEVICE_VARIABLE} names, has no open_device.") from None


def find_bitstream(bundle: Bundle, device: Any, bitstream: str | Path | None) -> Path:
    """The overlay of a bundle's accelerator: the one given, the device's own, or the first found.

    It is searched by name in the bundle's folder, the one above, the current one, and the build's folder.
    """
    given = bitstream or getattr(device, "bitstream", None)
    name = f"edge_moe_{bundle.manifest.accelerator.hash}.bit"
    places = [bundle.path / name, bundle.path.parent / name, Path(name), *sorted(_BUILD.glob(f"*/*/{name}"))]
    candidates = [Path(given)] if given else places
    found = next((path for path in candidates if kind(path) == "file"), None)
    if found is None:
        where = f"'{given}' does not exist" if given else f"{name} is neither beside the bundle nor here"
        raise DeviceError(f"the overlay is missing: {where}; give bitstream=.")
    if kind(found.with_suffix(".hwh")) != "file":
        raise DeviceError(f"'{found.with_suffix('.hwh')}' is missing: it belongs to '{found.name}'.")
    return found.resolve()


def read_handoff(path: Path) -> Element:
    """A hardware handoff (.hwh); DeviceError when it is damaged."""
    try:
        handoff = ElementTree.parse(path).getroot()
        reason: object = None if handoff.find("MODULES") is not None else "it describes no modules"
    except (OSError, ElementTree.ParseError) as error:
        reason = getattr(error, "strerror", None) or error
    if reason is not None:
        raise DeviceError(f"'{path}' is damaged: {reason}; copy it again, with its .bit.")
    return handoff


def interrupt_number(handoff: Element, cell: str) -> int:
    """Linux's number of a cell's interrupt: that of the processing system's input that it is connected to."""
    pin = handoff.find(f".//MODULE[@FULLNAME='/{cell}']/PORTS/PORT[@NAME='interrupt']")
    if pin is not None:
        for name, number in INTERRUPTS.items():
            if handoff.find(f".//PORT[@NAME='{name}'][@SIGNAME='{pin.get('SIGNAME')}']") is not None:
                return number
    raise BackendError(f"the overlay connects no interrupt of '{cell}': open the board with wait='poll'.")
