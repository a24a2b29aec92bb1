#!/usr/bin/env python3
"""Stands in for encoding a dataset."""

import argparse

from encoder import get_encoder
from load_dataset import load_dataset

parser = argparse.ArgumentParser(description="Pre-encode text files into tokenized training set.")
parser.add_argument("--model_name", default="124M", help="Pretrained model name")
parser.add_argument("--encoding", default="utf-8")
parser.add_argument("in_text")
parser.add_argument("out_npz")
args = parser.parse_args()

tokens = load_dataset(get_encoder(args.model_name), args.in_text, args.encoding)
with open(args.out_npz, "wb") as out:
    tokens.tofile(out)
print(f"Wrote {len(tokens)} tokens to {args.out_npz}", flush=True)
