"""A WebSocket client that tries what WebSockets can do, through the address it is given."""
import asyncio
import sys

import websockets


async def main(address, key):
    options = {
        "max_size": 2**24,
        "subprotocols": ["talk"],
        "extra_headers": {"X-User": key},
        "open_timeout": 20,
    }
    async with websockets.connect(f"ws://{address}/chat?room=1", **options) as connection:
        assert connection.subprotocol == "talk", connection.subprotocol
        assert connection.response_headers["Cutover-Arm"], connection.response_headers
        messages = ["héllo", b"\x00\xff" * 5, "", "x" * 100_000, b"y" * 4_000_000]
        for message in messages:
            await connection.send(message)
        for message in messages:
            assert await connection.recv() == message, len(message)
        await asyncio.wait_for(await connection.ping(b"are you there"), 20)
        await connection.send("farewell")
        await asyncio.wait_for(connection.wait_closed(), 20)
        assert (connection.close_code, connection.close_reason) == (4001, "as you wish")
    async with websockets.connect(f"ws://{address}/", **options) as connection:
        await connection.close(1000, "done")
        assert connection.close_code == 1000, connection.close_code
    print(connection.response_headers["Cutover-Arm"])


asyncio.run(main(*sys.argv[1:]))
