"""The floor under every RPC: bare grpc.aio that answers with bytes that it has: `... echo PORT FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import uvloop

METHOD = "/bench.Echo/Get"


async def serve(port: int, answer: bytes) -> None:
    """Answer for ever."""

    async def get(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    handler = grpc.method_handlers_generic_handler(
        "bench.Echo", {"Get": grpc.unary_unary_rpc_method_handler(get)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
