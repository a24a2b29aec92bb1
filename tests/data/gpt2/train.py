"""Stands in for fine-tuning: takes the real trainer's options and writes where it writes."""

import argparse
import json
import os

parser = argparse.ArgumentParser(description="Fine-tune GPT-2 on your custom dataset.")
parser.add_argument("--dataset", required=True)
parser.add_argument("--model_name", default="124M")
parser.add_argument("--models_dir", default="models")
parser.add_argument("--combine", type=int, default=50000)
parser.add_argument("--encoding", default="utf-8")
parser.add_argument("--batch_size", type=int, default=1)
parser.add_argument("--learning_rate", default="0.00002")
parser.add_argument("--accumulate_gradients", type=int, default=1)
parser.add_argument("--memory_saving_gradients", action="store_true")
parser.add_argument("--twremat", action="store_true")
parser.add_argument("--twremat_memlimit", default="12GB")
parser.add_argument("--only_train_transformer_layers", action="store_true")
parser.add_argument("--optimizer", default="adam")
parser.add_argument("--noise", type=float, default=0.0)
parser.add_argument("--top_k", type=int, default=40)
parser.add_argument("--top_p", type=float, default=0.0)
parser.add_argument("--restore_from", default="latest")
parser.add_argument("--run_name", default="run1")
parser.add_argument("--sample_every", type=int, default=100)
parser.add_argument("--sample_length", type=int, default=1023)
parser.add_argument("--sample_num", type=int, default=1)
parser.add_argument("--save_every", type=int, default=1000)
parser.add_argument("--val_dataset", default=None)
parser.add_argument("--val_batch_size", type=int, default=2)
parser.add_argument("--val_batch_count", type=int, default=40)
parser.add_argument("--val_every", type=int, default=0)
args = parser.parse_args()

with open(os.path.join(args.models_dir, args.model_name, "hparams.json")) as hparams:
    print("model", json.load(hparams)["model"], flush=True)
tokens = os.path.getsize(args.dataset) // 2
print(f"dataset has {tokens} tokens", flush=True)

checkpoint = os.path.join("checkpoint", args.run_name)
samples = os.path.join("samples", args.run_name)
os.makedirs(checkpoint, exist_ok=True)
os.makedirs(samples, exist_ok=True)
with open(os.path.join(checkpoint, "arguments.json"), "w") as out:
    json.dump(vars(args), out, indent=1, sort_keys=True)
with open(os.path.join(checkpoint, "model-1"), "wb") as out:
    out.write(bytes(range(256)) * tokens)
with open(os.path.join(samples, "samples-1"), "w") as out:
    out.write("======== SAMPLE 1 ========\nO Romeo, Romeo\n")
print("[1 | 0.10] loss=3.14 avg=3.14", flush=True)
