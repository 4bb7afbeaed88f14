"""A WebSocket server that sends back what it hears, and says where it listens."""
import asyncio
import sys

import websockets


async def echo(connection, *_):
    async for message in connection:
        if message == "farewell":
            await connection.close(4001, "as you wish")
        else:
            await connection.send(message)


async def main():
    options = {"max_size": 2**24, "subprotocols": ["talk"]}
    async with websockets.serve(echo, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
