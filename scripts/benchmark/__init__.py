"""What scripts/bench.py is made of; start reading there."""
