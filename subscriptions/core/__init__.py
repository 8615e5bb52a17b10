"""The decisions: facts and the time in, effects out.

Never does I/O, never reads a clock and never draws a random number of its own.
"""
