"""One module per system: ``CONTENDERS`` has the variants of each workload, the one called like the system first.

A contender is called with the input of the workload, and returns its answer; the whole call is timed. ``PARTS`` says of
slow variants by what the size of their input is divided.
"""
