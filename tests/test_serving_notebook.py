"""`serve` where a loop runs already, as in a notebook: it answers, and an interrupted cell ends it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("uvicorn", reason="serve needs the extra wscl-embed[serve]")

NOTEBOOK = """
import asyncio, os, signal, threading
from urllib.request import urlopen
from wscl_embed.serving.server import Server, open_socket

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a page"})

def ready(address):
    def ask():
        print(urlopen(address).read().decode(), flush=True)
        os.kill(os.getpid(), signal.SIGINT)  # what a notebook does to interrupt a cell
    threading.Thread(target=ask).start()

async def cell():
    Server(app, open_socket(0), ready).serve_until_stopped()
    print("the next cell")

signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.new_event_loop().run_until_complete(cell())
"""


def test_a_notebook_serves_until_its_cell_is_interrupted() -> None:
    done = subprocess.run([sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split("\n")) == (0, ["a page", "the next cell", ""]), done.stderr
