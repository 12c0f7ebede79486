"""The shared mathematics. Modules here take numbers, never a config, and know no family by name.

Shapes: B sequences, T tokens, D hidden size, H heads.

Models are built on torch's meta device and filled from the checkpoint, so a module must not compute anything in its
constructor: only parameters and buffers that a checkpoint holds live there, the rest is computed in `forward`.
"""
