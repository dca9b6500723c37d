"""Does the t kernel help? A long experiment that grows run by run, and the endpoints it decides.

`sscl kernel` makes its runs; METHOD.md beside its records says what was fixed before the first.
design: what is compared. search: how settings are chosen. phases: which runs follow from what is
recorded. measuring, running: making them. ledger: the records. endpoints, reading: what they say.
"""
