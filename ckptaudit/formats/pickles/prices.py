"""What the values of a pickle take in CPython's memory, in bytes, rounded up: how memory is counted, not measured."""

from __future__ import annotations

NUMBER = 32  # small integers are shared
TEXT = 80  # and one for each character, or four where one of them is not ASCII
BYTES = 56  # and the bytes
LIST = 112
TUPLE = 56
ITEM = 8  # of a list or tuple
DICT = 176  # that of its first item included
PAIR = 96  # of a dict
CALL = 96
NODE = 64  # other nodes
FAR = 128  # a memo entry out of the row
