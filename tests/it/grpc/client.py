"""A gRPC client that was written without us in mind.

Called with an address, a scenario and its argument; prints what it found as one line of JSON.
"""

import json
import queue
import sys

import grpc

ADDRESS, SCENARIO, ARGUMENT = sys.argv[1:4]
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
]
channel = grpc.insecure_channel(ADDRESS, options=OPTIONS)
METADATA = (("x-user", "somebody"), ("note-bin", b"\x00\x01\xfe\xff"))


def method(kind, name):
    return getattr(channel, kind)(f"/test.Api/{name}")


def told(call):
    """How a call ended, as its client sees it."""
    return {
        "code": call.code().name,
        "details": call.details(),
        "initial": text(call.initial_metadata()),
        "trailing": text(call.trailing_metadata()),
    }


def text(metadata):
    return {k: v.hex() if isinstance(v, bytes) else v for k, v in metadata or ()}


def unary(name, request, timeout=20, metadata=METADATA):
    try:
        answer, call = method("unary_unary", name).with_call(
            request, timeout=timeout, metadata=metadata
        )
        return {"answer": answer.decode(), **told(call)}
    except grpc.RpcError as error:
        return told(error)


def stream(name, request):
    call = method("unary_stream", name)(request, timeout=20, metadata=METADATA)
    answers = []
    try:
        for answer in call:
            answers.append(answer.decode())
    except grpc.RpcError:
        pass
    return {"answers": answers, **told(call)}


def collect(argument):
    pieces = (b"x" * 1000 for _ in range(int(argument)))
    answer, call = method("stream_unary", "Collect").with_call(
        pieces, timeout=20, metadata=METADATA
    )
    return {"answer": answer.decode(), **told(call)}


def chat(argument):
    """Says the next thing only when the last was answered."""
    said = queue.Queue()
    call = method("stream_stream", "Chat")(iter(said.get, None), timeout=20, metadata=METADATA)
    answers = []
    for number in range(int(argument)):
        said.put(str(number).encode())
        answers.append(next(call).decode())
    said.put(None)
    answers += [answer.decode() for answer in call]
    return {"answers": answers, **told(call)}


def large(argument):
    body = bytes(range(256)) * (int(argument) // 256)
    answer, call = method("unary_unary", "Echo").with_call(body, timeout=20, metadata=METADATA)
    return {"same": answer == body, **told(call)}


def many(argument):
    """That many calls at once over one connection."""
    echo = method("unary_unary", "Echo")
    said = [str(number).encode() for number in range(int(argument))]
    calls = [echo.future(one, timeout=20, metadata=METADATA) for one in said]
    return {"right": sum(call.result() == one for call, one in zip(calls, said))}


def leave(name):
    """Begins a call and cancels it when it is told to on standard input."""
    kind, argument = name.split(":")
    if kind == "Drink":
        said = queue.Queue()
        said.put(argument.encode())
        call = method("stream_unary", kind).future(iter(said.get, None), metadata=METADATA)
    elif kind == "HangAfter":
        call = method("unary_stream", kind)(argument.encode(), metadata=METADATA)
        next(call)
    else:
        call = method("unary_unary", kind).future(argument.encode(), metadata=METADATA)
    sys.stdin.readline()
    call.cancel()
    return {"code": call.code().name}


SCENARIOS = {
    "unary": lambda argument: unary("Echo", argument.encode()),
    "fail": lambda argument: unary("Fail", argument.encode()),
    "fail_with_key": lambda argument: unary(
        "Fail", argument.encode(), metadata=METADATA + (("idempotency-key", "7"),)
    ),
    "metadata": lambda argument: unary("Metadata", b"", timeout=float(argument)),
    "hang": lambda argument: unary("Hang", b"me", timeout=float(argument)),
    "count": lambda argument: stream("Count", argument.encode()),
    "fail_late": lambda argument: stream("FailLate", argument.encode()),
    "collect": collect,
    "chat": chat,
    "large": large,
    "many": many,
    "leave": leave,
}

print(json.dumps(SCENARIOS[SCENARIO](ARGUMENT)), flush=True)
