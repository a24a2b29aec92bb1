"""Stands in for byte pair encoding: one token a character."""

import json
import os


class Encoder:
    """Characters to tokens, by the table that was downloaded with the model."""

    def __init__(self, table):
        self.table = table

    def encode(self, text):
        return [self.table.get(character, 0) for character in text]


def get_encoder(model_name, models_dir="models"):
    """The encoder of a downloaded model."""
    with open(os.path.join(models_dir, model_name, "encoder.json")) as table:
        return Encoder(json.load(table))
