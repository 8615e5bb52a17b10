"""Payloads under a key for each subject, which can be destroyed: then what they said is gone, wherever they are.

``options`` says what is chosen, ``keys`` where keys are kept, ``ring`` which are in use, ``envelope`` how it all looks.
"""
