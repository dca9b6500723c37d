"""Kinds of runs: for each, a module that loads its data, trains, and measures what was trained.

The key of a result holds the code that its kind's module reaches (see `store`): what a module here
imports is what makes its runs stale when it changes.
"""
