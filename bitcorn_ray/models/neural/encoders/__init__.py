"""Encoders of windows: one file an architecture.

An encoder is an `nn.Module` that maps windows (L, B, F), time first, to a state (B, D). It has `output_size` (D), and
`work_per_window(seq_len)`, the number of states that one window costs. It draws its dropout by `dropout.drop`.
"""
