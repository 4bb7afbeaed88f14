"""A gRPC server that was written without us in mind: one arm of a migration.

Its methods take and give plain bytes. It says its port, and which calls were cancelled, on its
standard output; it ends with its standard input.
"""

import json
import os
import sys
import threading
from concurrent import futures

import grpc

NAME = sys.argv[1]


def say(line):
    print(line, flush=True)


def named(context):
    context.send_initial_metadata((("served-by", NAME),))


def echo(request, context):
    named(context)
    context.set_trailing_metadata((("after", NAME), ("after-bin", b"\x00\xff")))
    return request


def fail(request, context):
    """Fails with this code before anything else was said: trailers only."""
    code = next(code for code in grpc.StatusCode if code.name == request.decode())
    context.abort(code, f"{NAME} says {code.name}")


def fail_late(request, context):
    """Fails with this code after the head was sent."""
    named(context)
    code = next(code for code in grpc.StatusCode if code.name == request.decode())
    yield b"first"
    context.abort(code, f"{NAME} says {code.name}")


def count(request, context):
    named(context)
    for number in range(int(request)):
        yield str(number).encode()


def collect(requests, context):
    named(context)
    return str(sum(len(request) for request in requests)).encode()


def chat(requests, context):
    named(context)
    for request in requests:
        yield b"heard " + request


def metadata(request, context):
    named(context)
    fields = context.invocation_metadata()
    pairs = [(k, v.hex() if isinstance(v, bytes) else v) for k, v in fields]
    return json.dumps({"metadata": pairs, "remaining": context.time_remaining()}).encode()


def hang(request, context):
    """Says nothing until the client leaves."""
    gone = threading.Event()
    context.add_callback(gone.set)
    say(f"begun {request.decode()}")
    gone.wait(60)
    say(f"cancelled {request.decode()}")
    return b""


def hang_after(request, context):
    """Says one thing, and nothing more until the client leaves."""
    yield b"first"
    hang(request, context)


def drink(requests, context):
    """Takes messages until the client leaves."""
    name = next(requests).decode()
    context.add_callback(lambda: say(f"cancelled {name}"))
    say(f"begun {name}")
    for _ in requests:
        pass
    return b""


HANDLERS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "HangAfter": grpc.unary_stream_rpc_method_handler(hang_after),
    "Drink": grpc.stream_unary_rpc_method_handler(drink),
}

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=OPTIONS)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Api", HANDLERS),))
say(f"port {server.add_insecure_port('127.0.0.1:0')}")
server.start()
sys.stdin.read()
os._exit(0)
