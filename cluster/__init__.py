"""The placing side: which node runs which subscription, on Ray.

The only part that knows Ray, and within it only ``actors`` imports it.
"""
