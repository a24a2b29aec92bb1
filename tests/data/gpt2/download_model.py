"""Stands in for the download of a GPT-2 model: makes small files with the names of the real ones."""

import hashlib
import json
import os
import sys

if len(sys.argv) != 2:
    sys.exit("usage: download_model.py MODEL, e.g. 124M")

model = sys.argv[1]
folder = os.path.join("models", model)
os.makedirs(folder, exist_ok=True)

FILES = {
    "checkpoint": b'model_checkpoint_path: "model.ckpt"\n',
    "hparams.json": json.dumps({"n_vocab": 50257, "n_ctx": 1024, "model": model}).encode(),
    "encoder.json": json.dumps({chr(code): code for code in range(32, 127)}).encode(),
    "model.ckpt.data-00000-of-00001": b"".join(hashlib.sha256(f"{model} {i}".encode()).digest() for i in range(8192)),
}
for name, content in FILES.items():
    with open(os.path.join(folder, name), "wb") as out:
        out.write(content)
    print(f"Fetching {name}: {len(content)} bytes", flush=True)
