"""What `calls.py` is made of: the key of a request, the store of answers, the gate, budget, faults and pace."""
