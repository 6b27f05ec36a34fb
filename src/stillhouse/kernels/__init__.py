"""Memory- and time-critical pieces under the objectives: how a loss over positions is summed without holding it."""
