"""How fast it is: ratios against peers and limits, measured in turns in one run.

A group is a list of figures. Contestants of a figure run one after the other, round by
round, so that whatever else the machine does meets them alike; what is told is the
median of the ratios of the rounds, with their quartiles and extremes.
"""
