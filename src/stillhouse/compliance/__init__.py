"""What the terms of teachers, hosts, data sets and starting weights say about a plan, with clause, source and date.

    plan_of (recipe_plan)  ->  decide (gates)  ->  enforce (gates)

`evaluate` is the decision itself, a pure function of plan, registry and date. Nothing in this package writes a file:
cards, notices and bills of materials are returned as text or fields. It is not legal advice.
"""
