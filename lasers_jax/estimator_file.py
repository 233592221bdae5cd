"""The arrays of one file that a DictionaryLearning is saved in."""

import json
import numbers

import jax
import numpy as np

_FORMAT = 'lasers_jax.DictionaryLearning, format 1'
_FITTED = (
  'n_features_in_ feature_names_in_ n_iter_ n_steps_ error_ method_'
).split()


def as_arrays(estimator) -> dict[str, np.ndarray]:
  """Returns the arrays of a file, and a header in JSON for what is none."""
  parameters = estimator.get_params()
  arrays = {'components_': estimator.components_}
  atoms = parameters.pop('dict_init')
  if atoms is not None:
    arrays['dict_init'] = np.asarray(atoms)
  if not isinstance(parameters['random_state'], numbers.Integral):
    parameters['random_state'] = None
  fitted = {x: getattr(estimator, x) for x in _FITTED if hasattr(estimator, x)}
  header = {'format': _FORMAT, 'parameters': parameters, 'fitted': fitted}
  arrays['header'] = json.dumps(header, default=lambda value: value.tolist())
  for i, leaf in enumerate(jax.tree.leaves(estimator._state)):
    arrays[f'state_{i}'] = leaf
  return arrays


def from_arrays(cls: type, arrays: dict[str, np.ndarray]):
  """Undoes `as_arrays`; raises anything where it cannot."""
  header = json.loads(str(arrays['header']))
  if header['format'] != _FORMAT:
    raise ValueError(f'the format is {header["format"]!r}')
  estimator = cls(dict_init=arrays.get('dict_init'), **header['parameters'])
  for name, value in header['fitted'].items():
    names = name == 'feature_names_in_'
    setattr(estimator, name, np.asarray(value, object) if names else value)
  estimator.components_ = arrays['components_']
  estimator.method_ = header['fitted'].get('method_', estimator.method)
  learner = estimator._learner(len(estimator.components_))
  blank = learner.init(estimator.components_.T, jax.random.PRNGKey(0))
  like, tree = jax.tree.flatten(blank)
  # Files of before have no exponent, the last: their unit is 1.
  arrays.setdefault(f'state_{len(like) - 1}', np.int32(0))
  leaves = [jax.numpy.asarray(arrays[f'state_{i}']) for i in range(len(like))]
  if [x.aval for x in leaves] != [x.aval for x in like]:
    raise ValueError('the state does not fit the dictionary')
  estimator._state = jax.tree.unflatten(tree, leaves)
  return estimator
