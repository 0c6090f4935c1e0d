# SPDX-License-Identifier: Apache-2.0
"""A simulated board with PYNQ.remote: answers the calls of pynq's ``RemoteDevice`` over gRPC.

    python board/zcu104/simulated_server.py --port 7967

and on the other side ``Accelerator.open("pynq", "bundle/", address="localhost")``.
"""

import itertools
import os
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import PurePosixPath
from typing import Any

from command import Parser, packages, whole

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's own lines about a port that is taken
with packages("simulated_server"):
    import grpc
    import numpy as np
    from pynq.pl_server.remote_device import BS_FPGA_MAN, BS_FPGA_MAN_FLAGS, FIRMWARE, PYNQ_PORT
    from pynq.remote import (
        buffer_pb2,
        buffer_pb2_grpc,
        mmio_pb2,
        mmio_pb2_grpc,
        remote_device_pb2,
        remote_device_pb2_grpc,
    )
    from simulated import SimulatedDevice

CHUNK = 2 * 1024 * 1024  # bytes of a buffer in one message
_DATA = mmio_pb2.ReadResponse.DESCRIPTOR.fields_by_name["data"]
_SIGNED = _DATA.type == _DATA.TYPE_INT32  # of a register, in pynq 3.1
_FILES = {
    "/proc/version": b"Linux version (simulated) aarch64\n",
    "/sys/class/fpga_manager/fpga0/state": b"operating\n",
    BS_FPGA_MAN_FLAGS: b"0\n",
}


class _Files(remote_device_pb2_grpc.RemoteDeviceServicer):
    """The board's files; writing a name to FPGA manager's configures the programmable logic."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device, self._files = device, dict(_FILES)

    def existsfile(self, request: Any, _: Any) -> Any:
        return remote_device_pb2.ExistsFileResponse(exists=request.file_path in self._files)

    def readfile(self, request: Any, context: Any) -> Iterator[Any]:
        if request.file_path not in self._files:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.file_path} does not exist")
        yield remote_device_pb2.ReadFileResponse(data=self._files[request.file_path])

    def writefile(self, requests: Iterator[Any], context: Any) -> Any:
        parts = list(requests)
        path, data = parts[0].file_path, b"".join(part.data for part in parts)
        if path == BS_FPGA_MAN:
            try:
                self._device.configure(self._files[FIRMWARE + PurePosixPath(data.decode()).name])
            except (RuntimeError, KeyError) as error:
                context.abort(grpc.StatusCode.INTERNAL, f"FPGA manager: {error}")
        else:
            self._files[path] = data
        return remote_device_pb2.WriteFileResponse()

    def set_bitstream_attrs(self, *_: Any) -> Any:
        return remote_device_pb2.SetBitstreamAttrsResponse(status=True)


class _Registers(mmio_pb2_grpc.MmioServicer):
    def __init__(self, device: SimulatedDevice) -> None:
        self._device, self._bases, self._numbers = device, dict[str, int](), itertools.count()

    def get_mmio(self, request: Any, _: Any) -> Any:
        name = str(next(self._numbers))
        self._bases[name] = request.base_addr
        return mmio_pb2.GetMmioResponse(mmio_id=name)

    def read(self, request: Any, _: Any) -> Any:
        try:
            data = self._device.read_registers(self._bases[request.mmio_id] + request.offset, request.length)
        except OSError as error:
            return mmio_pb2.ReadResponse(msg=str(error))
        return mmio_pb2.ReadResponse(data=int.from_bytes(data, "little", signed=_SIGNED))

    def write(self, request: Any, _: Any) -> Any:
        try:
            self._device.write_registers(self._bases[request.mmio_id] + request.offset, request.data)
        except OSError as error:
            return mmio_pb2.WriteResponse(msg=str(error))
        return mmio_pb2.WriteResponse()


class _Buffers(buffer_pb2_grpc.RemoteBufferServicer):
    """Buffers of the board; the host has copies, which flush and invalidate transfer over the network."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device, self._buffers, self._numbers = device, dict[str, Any](), itertools.count()

    def allocate(self, request: Any, _: Any) -> Any:
        try:
            buffer = self._device.allocate((request.size,), np.uint8)
        except RuntimeError as error:
            return buffer_pb2.AllocateResponse(msg=str(error))
        name = str(next(self._numbers))
        self._buffers[name] = buffer
        return buffer_pb2.AllocateResponse(buffer_id=name)

    def freebuffer(self, request: Any, _: Any) -> Any:
        buffer = self._buffers.pop(request.buffer_id, None)
        if buffer is None:
            return buffer_pb2.FreeBufferResponse(msg="no such buffer")
        buffer.freebuffer()
        return buffer_pb2.FreeBufferResponse()

    def physical_address(self, request: Any, _: Any) -> Any:
        buffer = self._buffers.get(request.buffer_id)
        if buffer is None:
            return buffer_pb2.AddressResponse(msg="no such buffer")
        return buffer_pb2.AddressResponse(address=buffer.device_address)

    def write(self, requests: Iterator[Any], _: Any) -> Any:
        place = 0
        for request in requests:
            part = np.frombuffer(request.data, np.uint8)
            self._buffers[request.buffer_id][place : place + len(part)] = part
            place += len(part)
        return buffer_pb2.BufferWriteResponse()

    def read(self, request: Any, _: Any) -> Iterator[Any]:
        data = self._buffers[request.buffer_id].tobytes()
        for start in range(0, len(data), CHUNK):
            yield buffer_pb2.BufferReadResponse(data=data[start : start + CHUNK])

    def flush(self, request: Any, _: Any) -> Any:
        self._buffers[request.buffer_id].flush()
        return buffer_pb2.FlushResponse()

    def invalidate(self, request: Any, _: Any) -> Any:
        self._buffers[request.buffer_id].invalidate()
        return buffer_pb2.InvalidateResponse()


def serve(device: SimulatedDevice, port: int = 0) -> tuple[grpc.Server, int]:
    """A running server and its port: a free one for ``port`` 0. Only this machine can reach it."""
    options = [("grpc.so_reuseport", 0)]  # a port of another server is refused
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=options)
    remote_device_pb2_grpc.add_RemoteDeviceServicer_to_server(_Files(device), server)
    mmio_pb2_grpc.add_MmioServicer_to_server(_Registers(device), server)
    buffer_pb2_grpc.add_RemoteBufferServicer_to_server(_Buffers(device), server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


def main() -> int:
    parser = Parser(prog="simulated_server", description=__doc__.splitlines()[0])
    port = whole("a port", 0, 65535)
    parser.add_argument("--port", type=port, default=PYNQ_PORT, help=f"{PYNQ_PORT}; 0 takes a free one")
    options = parser.parse_args()
    device = SimulatedDevice("simulated-server")
    try:
        server, bound = serve(device, options.port)
    except RuntimeError:
        parser.error(f"port {options.port} is taken, or not allowed: give another, or 0 for a free one")
    print(f"simulated board at localhost:{bound}, until Ctrl-C", flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(None).wait()
    finally:
        device.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
