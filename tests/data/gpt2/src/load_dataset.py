"""Text in, tokens out."""

import array


def load_dataset(encoder, path, encoding):
    """The tokens of a text file."""
    with open(path, encoding=encoding) as text:
        return array.array("H", encoder.encode(text.read()))
