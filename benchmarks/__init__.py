"""How fast is it, beside what it could be and beside what else there is: one module for each question.

``python -m benchmarks`` asks them. Nothing here is part of the library.
"""
