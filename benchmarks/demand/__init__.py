"""What benchmarks/elecdemand.py compares on a year of half-hourly demand: the data, the nets, their rivals, the tables."""
