"""Serves SMTP on a port of loopback and writes each message to a directory, once for each recipient."""
import asyncio
import os
import sys
import uuid

from aiosmtpd.smtp import SMTP


class Writer:
    async def handle_DATA(self, server, session, envelope):
        for to in envelope.rcpt_tos:
            path = os.path.join(sys.argv[2], uuid.uuid4().hex)
            with open(path, "wb") as f:
                f.write(to.encode() + b"\n" + envelope.content)
            os.rename(path, path + ".eml")
        return "250 2.0.0 taken"


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Writer(), data_size_limit=50 << 20, enable_SMTPUTF8=True, hostname="aiosmtpd.example", loop=loop),
        "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
