"""One file a kind of model that torch trains: its settings, its module, and what it declares.

Modules know tensors: no process, no DataFrame, no file. `base` has what they are made of and served by.
"""
