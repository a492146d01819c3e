"""The numbers behind the admin page, the commands and the endpoints.

figures      what is shown, as plain values
histogram    percentiles from few numbers that add up
show         the functions that return figures
"""
