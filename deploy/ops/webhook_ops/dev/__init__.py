"""The dev runner: the whole system on one machine, from one command.

Owns the embedded Redis, the dev secrets, the processes and their log. Never holds a part that
production does not have: the processes are the same ones, with small real parts behind them.

Tests enter the same system: `async with system.running_system(var, free_ports=True) as running`.
"""
