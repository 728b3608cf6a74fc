"""How the work of a team comes together: who hears of what, what overlaps, what comes in from outside."""
