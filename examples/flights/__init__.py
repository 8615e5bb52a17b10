"""The flights of 2013 through the store and a cluster: ``python -m examples.flights`` (``make demo`` runs it).

An ordinary program on Headwater's public interface; nothing of Headwater imports it.
"""
