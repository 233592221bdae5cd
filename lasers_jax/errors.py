"""The two errors that the scripts report on one line."""


class InputError(ValueError):
  """What the user gave cannot be used; the message says how to mend it.

  The scripts print it and exit with code 2.
  """


class TrainingError(RuntimeError):
  """A run cannot go on, through no fault of what the user gave.

  The scripts print it and exit with code 1.
  """
