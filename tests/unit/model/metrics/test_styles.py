"""The logs of well-known programs, in the form in which these print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest

from dstack.model.metrics.reader import Reader
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState

Values = dict[str, list[tuple[float, float]]]


class Style(NamedTuple):
    name: str
    log: str
    values: Values
    """By name, the step and the value of each point."""


STYLES = [
    Style(
        "keras 2",
        "Epoch 1/2\n"
        "  1/938 [..............................] - ETA: 4:35 - loss: 2.3796 - accuracy: 0.0938"
        "\b\b\b\b\r938/938 [==============================] - 3s 3ms/step - loss: 0.2979 - accuracy: 0.9144"
        " - val_loss: 1.566e-01 - val_accuracy: 0.9546\nEpoch 2/2\n"
        "938/938 [==============================] - 2s 2ms/step - loss: 0.1400 - accuracy: 0.9590\n",
        {
            "loss": [(1, 2.3796), (1, 0.2979), (2, 0.14)],
            "accuracy": [(1, 0.0938), (1, 0.9144), (2, 0.959)],
            "val_loss": [(1, 0.1566)],
            "val_accuracy": [(1, 0.9546)],
        },
    ),
    Style(
        "keras 3",
        "Epoch 1/10\n\x1b[1m1/2\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 187ms/step"
        " - accuracy: 0.1250 - loss: 2.3\b\b\b\b\b\b\x1b[1m2/2\x1b[0m \x1b[32m━━━━━━\x1b[0m\x1b[37m\x1b[0m"
        " \x1b[1m1s\x1b[0m 3ms/step - accuracy: 0.8800 - loss: 0.4 - learning_rate: 0.0010\n",
        {"accuracy": [(1, 0.125), (1, 0.88)], "loss": [(1, 2.3), (1, 0.4)], "learning_rate": [(1, 0.001)]},
    ),
    Style(
        "lightning",
        "Epoch 0:   0%|          | 0/938 [00:00<?, ?it/s]\r"
        "Epoch 0:  50%|█████     | 469/938 [00:05<00:05, 89.51it/s, v_num=3, train_loss=0.523]\r"
        "Epoch 0: 100%|██████████| 938/938 [00:10<00:00, 89.5it/s, v_num=3, train_loss=0.123, val_loss=0.2]\n"
        "Epoch 1:  50%|█████     | 469/938 [00:05<00:05, 90.00it/s, v_num=3, train_loss=1e-3, val_loss=nan.0]\r\n",
        {"train_loss": [(0, 0.523), (0, 0.123), (1, 0.001)], "val_loss": [(0, 0.2)]},
    ),
    Style(
        "hugging face trainer",
        "  2%|▏         | 10/500 [00:04<03:21,  2.43it/s]\r"
        "{'loss': 2.3123, 'grad_norm': 1.23, 'learning_rate': 4.9e-05, 'epoch': 0.02}\n"
        "{'loss': '1.9', 'grad_norm': 'nan', 'learning_rate': '4.8e-05', 'epoch': '0.04'}\n"
        "{'eval_loss': 1.5, 'eval_runtime': 3.2345, 'eval_samples_per_second': 309.17, 'epoch': 1.0}\n",
        {
            "loss": [(0.02, 2.3123), (0.04, 1.9)],
            "grad_norm": [(0.02, 1.23), (0.04, float("nan"))],
            "learning_rate": [(0.02, 4.9e-05), (0.04, 4.8e-05)],
            "eval_loss": [(1, 1.5)],
            "eval_runtime": [(1, 3.2345)],
            "eval_samples_per_second": [(1, 309.17)],
        },
    ),
    Style(
        "fastai",
        "epoch     train_loss  valid_loss  error_rate  time    \n"
        "0         1.037281    0.340510    0.106901    00:45     \n"
        "epoch     train_loss  valid_loss  error_rate  time    \n"
        "Epoch 1/2 : |███---| 33.33% [1/3 00:01<00:02]\r"
        "0         0.512       inf         8.1e-02     01:00     \n"
        "1         0.4         0.2         0.08        01:00     \n",
        {
            "train_loss": [(0, 1.037281), (0, 0.512), (1, 0.4)],
            "valid_loss": [(0, 0.34051), (0, float("inf")), (1, 0.2)],
            "error_rate": [(0, 0.106901), (0, 0.081), (1, 0.08)],
        },
    ),
    Style(
        "tqdm",
        "\rtraining:   0%|          | 0/100 [00:00<?, ?it/s]"
        "\rtraining:  50%|█████     | 50/100 [00:05<00:05,  9.52it/s, loss=0.512, acc=80.1%]"
        "\rtraining: 100%|██████████| 100/100 [00:10<00:00,  9.5it/s, loss=-inf, acc=81]\n",
        {"loss": [(0, 0.512), (1, float("-inf"))], "acc": [(0, 80.1), (1, 81)]},
    ),
    Style(
        "nanogpt",
        "number of parameters: 10.65M\nusing fused AdamW: True\n"
        "step 0: train loss 4.2874, val loss 4.2823\n"
        "iter 0: loss 4.2654, time 36.87ms, mfu -100.00%\n"
        "iter 10: loss 3.1, time 12.60ms, mfu 29.57%\n"
        "iter 20: loss nan, time 12.60ms, mfu 29.57%\n",
        {
            "train_loss": [(0, 4.2874)],
            "val_loss": [(0, 4.2823)],
            "loss": [(0, 4.2654), (10, 3.1), (20, float("nan"))],
            "mfu": [(0, -100), (10, 29.57), (20, 29.57)],
        },
    ),
    Style(
        "xgboost and lightgbm",
        "[0]\ttrain-rmse:0.50000\teval-rmse:6.1e-01\n"
        "[12:30:05] WARNING: src/learner.cc:742: host:8080 Parameters: { 'x' } might not be used.\n"
        "[10]\ttrain-rmse:0.25\teval-rmse:0.4\n"
        "[20]\tvalid_0's auc: 0.91\tvalid_0's binary_logloss: 0.3\n",
        {
            "train-rmse": [(0, 0.5), (10, 0.25)],
            "eval-rmse": [(0, 0.61), (10, 0.4)],
            "auc": [(20, 0.91)],
            "binary_logloss": [(20, 0.3)],
        },
    ),
    Style(
        "scikit-learn",
        "Iteration 1, loss = 2.29\nIteration 2, loss = 1.5\n"
        "Validation score: 0.913000\n"
        "      Iter       Train Loss   Remaining Time \n"
        "         1           1.2613            0.98s\n"
        "        10           0.8               1.02m\n",
        {"loss": [(1, 2.29), (2, 1.5)], "Validation_score": [(0, 0.913)], "Train_Loss": [(1, 1.2613), (10, 0.8)]},
    ),
    Style(
        "json lines",
        '{"step": 10, "val_loss": 0.3, "done": true, "note": "loss: 1"}\n'
        '{"epoch": 1, "global_step": 20, "val_loss": NaN, "gpu": {"memory": 3}}\n'
        '{"step": 30, "val_loss": 1e-5, "time": 1700000000.1, "gpu": {"memory": 4}}\n',
        {"val_loss": [(10, 0.3), (20, float("nan")), (30, 1e-05)], "memory": [(20, 3)], "gpu.memory": [(30, 4)]},
    ),
    Style(
        "plain text",
        "Train Epoch: 3 [6400/60000 (11%)]\tLoss: 0.25\n"
        "val loss: 0.5 val acc: 91.4% (best: 92)\n"
        "took 3.2s at 12:30, version 2.1.0, see http://localhost:8888/x=1?y=2z main.py:12: 1,000 rows: 1,000\n"
        "torch: 2.1.0 date: 2024-01-01 ratio=3/4 information=information a=b\n",
        {"Loss": [(3, 0.25)], "val_loss": [(0, 0.5)], "val_acc": [(0, 91.4)], "best": [(0, 92)]},
    ),
]


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_a_style_is_read(style: Style) -> None:
    # given
    series: dict[str, Series] = {}
    # when
    Reader("auto", ReaderState(position=0), series).read(style.log.encode(), 5.0)
    # then
    found = {name: [(point.step, point.value) for _, point in each.fresh] for name, each in series.items()}
    assert printed(found) == printed(style.values)


def printed(values: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, list[str]]:
    """The values as text: NaN equals itself there."""
    return {name: [f"{step:g}: {float(value)!r}" for step, value in points] for name, points in values.items()}
