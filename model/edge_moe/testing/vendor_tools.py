# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the vendor's programs, and files in the form that those write.

The stand-ins run the project's own scripts against stubs of the vendor's commands (tests/vendor/stubs), which
record each command. Verilog and reports are made from the interface description, in the tool's form.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from edge_moe.testing.checkout import ROOT, TESTS
from edge_moe.testing.hls_source import ap_types
from edge_moe.vendor import tcl as vendor
from edge_moe.vendor.interface import TOP, Interface, top_ports
from edge_moe_host.contract.registers import Register

STUBS = TESTS / "vendor" / "stubs"

FIFO = """\
module {top}_fifo
#(parameter DATA_WIDTH = 8, DEPTH = 2)
(input wire clk, input wire [DATA_WIDTH-1:0] din, output wire [DATA_WIDTH-1:0] dout);
reg [DATA_WIDTH-1:0] rom [0:DEPTH-1];
initial begin
    $readmemh("./{top}_table.dat", rom);
end
assign dout = rom[din[0]];
endmodule
"""


def adapter_text(top: str, registers: dict[str, Register], rename: str = "") -> str:
    """The control adapter's Verilog; argument ``rename`` gets the suffix of a reserved word."""
    arguments = [r for name, r in registers.items() if r.offset >= 0x10 and not name.endswith("_ctrl")]
    ports, constants = [], ["ADDR_AP_CTRL = 9'h000", "ADDR_GIE = 9'h004", "ADDR_IER = 9'h008"]
    constants.append("ADDR_ISR = 9'h00c")
    for argument in arguments:
        name = argument.name + ("_r" if argument.name == rename else "")
        width = f"[{argument.bits - 1}:0]"
        if argument.access == "r":
            ports += [f"    input  wire {width} {name}", f"    input  wire {name}_ap_vld"]
        else:
            ports.append(f"    output wire {width} {name}")
        words = argument.bits // 32
        for word in range(words):
            constants.append(f"ADDR_{name.upper()}_DATA_{word} = 9'h{argument.offset + 4 * word:03x}")
        constants.append(f"ADDR_{name.upper()}_CTRL = 9'h{argument.offset + 4 * words:03x}")
    constants += ["WRIDLE = 2'd0", "ADDR_BITS = 9"]
    return (
        f"`timescale 1ns/1ps\nmodule {top}_control_s_axi\n"
        "#(parameter\n    C_S_AXI_ADDR_WIDTH = 9,\n    C_S_AXI_DATA_WIDTH = 32\n)(\n"
        "    input  wire ACLK,\n    input  wire [C_S_AXI_ADDR_WIDTH-1:0] AWADDR,\n"
        "    input  wire [C_S_AXI_DATA_WIDTH/8-1:0] WSTRB,\n"
        "    output wire [C_S_AXI_DATA_WIDTH-1:0] RDATA,\n"
        + ",\n".join(ports)
        + ",\n    output wire ap_start\n);\n//-- Parameter --\nlocalparam\n    "
        + ",\n    ".join(constants)
        + ";\n"
        "    reg  [31:0] rdata = 'b0;\n    reg int_ap_start = 1'b0;\n"
        "assign RDATA = rdata;\nassign ap_start = int_ap_start;\n"
        "always @(posedge ACLK) begin\n"
        "    case (AWADDR)\n        ADDR_AP_CTRL: begin\n            rdata[0] <= WSTRB[0];\n        end\n"
        "    endcase\nend\nendmodule\n"
    )


def top_text(interface: Interface) -> str:
    """The top's Verilog."""
    top = interface.top
    ports = [port for port in top_ports(interface).values() if not port.name.startswith("ap_local")]
    lines = [
        "// Generated\n`timescale 1 ns / 1 ps \n",
        f'(* CORE_GENERATION_INFO="{top}_{top},hls_ip_2022_2,{{HLS_INPUT_TYPE=cxx,HLS_SYN_DSP=0}}" *)\n',
        f"module {top} (\n        " + ",\n        ".join(port.name for port in ports) + "\n);\n",
        "parameter    ap_ST_fsm_state1 = 2'd1;",
        "parameter    C_S_AXI_CONTROL_DATA_WIDTH = 32;",
        "parameter    C_S_AXI_CONTROL_ADDR_WIDTH = 9;",
        "parameter C_S_AXI_CONTROL_WSTRB_WIDTH = (32 / 8);",
    ]
    for master in interface.masters:
        prefix = f"C_M_AXI_{master.bundle.upper()}"
        lines += [
            f"parameter    {prefix}_ID_WIDTH = 1;",
            f"parameter    {prefix}_ADDR_WIDTH = 64;",
            f"parameter    {prefix}_DATA_WIDTH = {master.bits};",
            f"parameter {prefix}_WSTRB_WIDTH = ({master.bits} / 8);",
        ]
    lines.append("")
    for port in ports:
        width = _width_text(port.name, port.bits)
        lines.append(f"{port.direction}  {width} {port.name};")
    lines += [
        "",
        " reg    ap_rst_n_inv;",
        '(* fsm_encoding = "none" *) reg   [1:0] ap_CS_fsm;',
        "// power-on initialization",
        "initial begin",
        "#0 ap_CS_fsm = 2'd1;",
        "end",
        "`ifdef NEVER_DEFINED",
        "this is no Verilog",
        "`else",
        f"{top}_fifo #(\n    .DATA_WIDTH( 8 ),\n    .DEPTH( (4 / 2) ))\nfifo_U(\n    .clk(ap_clk)\n);",
        "`endif",
        f"{top}_control_s_axi #(\n    .C_S_AXI_ADDR_WIDTH( C_S_AXI_CONTROL_ADDR_WIDTH ))\ncontrol_s_axi_U(\n"
        "    .AWADDR(s_axi_control_AWADDR),\n    .ACLK(ap_clk)\n);",
        "always @ (posedge ap_clk) begin",
        "    if (ap_rst_n_inv == 1'b1) begin",
        "        ap_CS_fsm <= ap_ST_fsm_state1;",
        "    end else begin",
        "        ap_CS_fsm <= {{ap_CS_fsm[0:0]}, {1'b0}};",
        "    end",
        "end",
        "assign interrupt = ap_rst_n_inv;",
        f"endmodule //{top}",
        "",
    ]
    return "\n".join(lines)


def _width_text(name: str, bits: int) -> str:
    if name.startswith("s_axi_control_") and name.endswith(("DATA", "STRB", "ADDR")):
        kind = {"DATA": "DATA", "STRB": "WSTRB", "ADDR": "ADDR"}[name[-4:]]
        return f"[C_S_AXI_CONTROL_{kind}_WIDTH - 1:0]"
    bundle, _, signal = name.removeprefix("m_axi_").rpartition("_")
    for ending, kind in (("ADDR", "ADDR"), ("DATA", "DATA"), ("STRB", "WSTRB"), ("ID", "ID")):
        if name.startswith("m_axi_") and signal.endswith(ending) and not signal.endswith("VALID"):
            return f"[C_M_AXI_{bundle.upper()}_{kind}_WIDTH - 1:0]"
    return f"[{bits - 1}:0]" if bits > 1 else ""


def write_verilog(folder: Path, interface: Interface, rename: str = "output") -> None:
    """The accelerator's Verilog as the tool would leave it."""
    folder.mkdir(parents=True, exist_ok=True)
    top = interface.top
    (folder / f"{top}.v").write_text(top_text(interface))
    adapter = adapter_text(top, dict(interface.registers), rename)
    (folder / f"{top}_control_s_axi.v").write_text(adapter)
    (folder / f"{top}_fifo.v").write_text(FIFO.format(top=top))
    (folder / f"{top}_table.dat").write_text("00\n01\n")


def write_operator(folder: Path, name: str) -> None:
    """An operator's Verilog."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs, outputs = ("ap_clk", "ap_rst", "ap_start"), ("ap_done", "ap_idle", "ap_ready", "out_r_ce0")
    text = f"module {name} (\n  {', '.join((*inputs, *outputs))});\n"
    text += "".join(f"input   {port};\n" for port in inputs)
    text += "".join(f"output   {port};\n" for port in outputs)
    (folder / f"{name}.v").write_text(text + "assign ap_done = ap_start;\nendmodule\n")


def csynth_xml(interface: Interface, part: str = "", clock_ns: float = 0.0) -> str:
    """csynth.xml with two nested loops, the inner one pipelined, and a loop of unknown trip count."""
    cost = "<BRAM_18K>104</BRAM_18K><DSP>1100</DSP><FF>90000</FF><LUT>120000</LUT><URAM>64</URAM>"
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<profile>
  <section name = "General Information" level="0"/>
  <ReportVersion><Version>2022.2</Version></ReportVersion>
  <UserAssignments>
    <unit>ns</unit><ProductFamily>zynquplus</ProductFamily><Part>{part or interface.board.part}</Part>
    <TopModelName>{interface.top}</TopModelName>
    <TargetClockPeriod>{clock_ns or interface.clock_ns:.2f}</TargetClockPeriod>
    <ClockUncertainty>0.90</ClockUncertainty><FlowTarget>vivado</FlowTarget>
  </UserAssignments>
  <PerformanceEstimates>
    <PipelineType>dataflow</PipelineType>
    <SummaryOfTimingAnalysis><unit>ns</unit><EstimatedClockPeriod>2.433</EstimatedClockPeriod>
    </SummaryOfTimingAnalysis>
    <SummaryOfOverallLatency><unit>clock cycles</unit><Best-caseLatency>120</Best-caseLatency>
      <Average-caseLatency>undef</Average-caseLatency><Worst-caseLatency>undef</Worst-caseLatency>
    </SummaryOfOverallLatency>
  </PerformanceEstimates>
  <AreaEstimates>
    <Resources>{cost}</Resources>
    <AvailableResources><BRAM_18K>624</BRAM_18K><DSP>1728</DSP></AvailableResources>
  </AreaEstimates>
  <ModuleInformation>
    <Module><Name>execute</Name><PerformanceEstimates><SummaryOfLoopLatency>
      <OUTER><Name>OUTER</Name><TripCount>4</TripCount>
        <INNER><Name>INNER</Name><TripCount>8</TripCount><PipelineII>2</PipelineII>
          <PipelineDepth>9</PipelineDepth><PipelineType>yes</PipelineType></INNER></OUTER>
    </SummaryOfLoopLatency></PerformanceEstimates></Module>
    <Module><Name>read_image</Name><PerformanceEstimates><SummaryOfLoopLatency>
      <READ_IMAGE><Name>READ_IMAGE</Name><TripCount>undef</TripCount><PipelineII>1</PipelineII>
        <PipelineDepth>undef</PipelineDepth></READ_IMAGE>
    </SummaryOfLoopLatency></PerformanceEstimates></Module>
  </ModuleInformation>
</profile>
"""


UTILIZATION = """\
1. CLB Logic
------------

+----------------------------+--------+-------+------------+-----------+-------+
|          Site Type         |  Used  | Fixed | Prohibited | Available | Util% |
+----------------------------+--------+-------+------------+-----------+-------+
| CLB LUTs                   | 101234 |     0 |          0 |    230400 | 43.94 |
|   LUT as Logic             |  90000 |     0 |          0 |    230400 | 39.06 |
| CLB Registers              | 150321 |     0 |          0 |    460800 | 32.62 |
+----------------------------+--------+-------+------------+-----------+-------+

3. BLOCKRAM
| Site Type      | Used | Fixed | Prohibited | Available | Util% |
| Block RAM Tile | 90.5 |     0 |          0 |       312 | 29.01 |
|   RAMB36/FIFO* |   90 |    90 |          0 |       312 | 28.85 |
| URAM           |   64 |     0 |          0 |        96 | 66.67 |

4. ARITHMETIC
| Site Type | Used | Fixed | Prohibited | Available | Util% |
| DSPs      | 1071 |     0 |          0 |      1728 | 61.98 |
"""
POWER = """\
1. Summary
| Total On-Chip Power (W)  | 6.318        |
| Design Power Budget (W)  | Unspecified* |
"""


def write_results(folder: Path, interface: Interface, operator: str = "") -> None:
    """Files that the stubs copy in place of the tool's output: syn, sim, impl of HLS, reports of Vivado."""
    if operator:
        write_operator(folder / "syn" / "verilog", operator)
    else:
        write_verilog(folder / "syn" / "verilog", interface)
    texts = {
        "syn/report/csynth.xml": csynth_xml(interface),
        "sim/report/cosim.rpt": "| Verilog | Pass |\n",
        "impl/ip/component.xml": "<component/>\n",
        "reports/utilization.rpt": UTILIZATION,
        "reports/hierarchy.rpt": "hierarchy\n",
        "reports/timing.rpt": "timing\n",
        "reports/power.rpt": POWER,
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tcl_program() -> list[str]:
    """The command that runs Tcl; the test is skipped if there is none."""
    found = shutil.which("tclsh") or shutil.which("tclsh8.6")
    if found:
        return [found]
    import pytest

    pytest.importorskip("tkinter", reason="neither tclsh nor Python's tkinter is installed")
    return [sys.executable, str(STUBS / "tclsh.py")]


class Workplace:
    """A folder with stand-ins for these programs, and the variables that make builds in it with."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.folder, self.log = folder, folder / "log.jsonl"
        self.results, self.bin = folder / "results", folder / "bin"
        self.hls, self.board = folder / "hls", folder / "board"
        self.bin.mkdir(parents=True)
        tcl = tcl_program()
        commands = {
            "vitis_hls": [*tcl, STUBS / "hls.tcl"],
            "vivado": [*tcl, STUBS / "vivado.tcl"],
            "v++": [sys.executable, STUBS / "vpp.py", "v++"],
            "vitis-run": [sys.executable, STUBS / "vpp.py", "vitis-run"],
        }
        for program in programs:
            path = self.bin / program
            path.write_text(
                "#!/bin/sh\nexec " + " ".join(f'"{word}"' for word in commands[program]) + ' "$@"\n'
            )
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def make(self, where: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run make with an environment that has only the programs that it needs."""
        found = [shutil.which(program) for program in ("make", "g++", "sh", "cp")]
        path = [str(self.bin), *dict.fromkeys(str(Path(program).parent) for program in found if program)]
        variables = {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.folder),
            "LC_ALL": "C",
            "OMP_NUM_THREADS": "1",
            "VENDOR_LOG": str(self.log),
            "VENDOR_RESULTS": str(self.results),
            **environment,
        }
        places = [f"BUILD={self.hls}"] if where == "hls" else [f"OUT={self.board}", f"HLS_BUILD={self.hls}"]
        command = [
            "make",
            "--no-print-directory",
            "-C",
            str(ROOT / where),
            f"PYTHON={sys.executable}",
            *places,
        ]
        return subprocess.run(
            [*command, *words], env=variables, capture_output=True, text=True, timeout=120, check=False
        )

    def commands(self, *names: str) -> list[dict[str, object]]:
        """Commands that the stubs recorded since the last call; with names, only these."""
        entries = (
            [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        )
        self.log.unlink(missing_ok=True)
        return [entry for entry in entries if not names or entry["command"] in names]


def workplace(folder: Path, interface: Interface, *programs: str, operator: str = "") -> Workplace:
    place = Workplace(folder, *programs)
    write_results(place.results, interface, operator)
    return place


def one_sentence(run: subprocess.CompletedProcess[str]) -> str:
    """Output of make without its own error line."""
    assert run.returncode != 0
    own = [
        line
        for line in run.stdout.splitlines()
        if not line.startswith(("make", "PYTHONPATH=")) and "/generated/" not in line
    ]
    assert len(own) == 1, run.stdout
    return own[0]


def stub_headers() -> list[str]:
    """Flags for stand-ins of the tool's headers, and the open arbitrary-precision types that they use."""
    return ["-isystem", str(STUBS / "include"), "-isystem", str(ap_types())]


def synthesis_command(source: Path, headers: Path, *mode: str, accelerator: str = "zcu104") -> list[str]:
    """g++ with __SYNTHESIS__, as the tool's own compiler has it."""
    flags = vendor.design(accelerator, TOP, ROOT / "hls", headers).flags.split()
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-label", "-Wno-unknown-pragmas"]
    return ["g++", *mode, "-D__SYNTHESIS__=1", *warnings, *flags, *stub_headers(), str(source)]
