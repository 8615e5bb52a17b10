"""The published test kit: a virtual clock, builders of events, a simulator of failures, and fixtures.

For the tests of Headwater itself and for those of its users; nothing in production imports it.
"""
