"""Takes TLS at a port of the loopback and gives what is in it to another port. Usage: tls_proxy.py CERTIFICATE.pem TARGET; prints
the port."""
import asyncio
import ssl
import sys


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def serve(reader, writer):
    inside, out = await asyncio.open_connection('127.0.0.1', int(sys.argv[2]))
    await asyncio.gather(copy(reader, out), copy(inside, writer))


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1])
    server = await asyncio.start_server(serve, '127.0.0.1', 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
