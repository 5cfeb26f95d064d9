"""The fuzzer: random right arguments against NumPy in float64, random wrong ones against the rules.

    python -m tests.fuzz --cases 100000 --illegal 10000 --seed 0
    python -m tests.fuzz --cases 2000 --room sort          # one room
    python -m tests.fuzz --room ops --plan 17              # one plan, as a finding names it

A plan is what a compiled program fixes: shapes, dtypes, options. Hundreds of cases with other
numbers go through one program, by `jax.vmap` or one after the other, so that tens of thousands take
minutes::

    rooms/*.py   family --draws--> Program (program.py): draw, run, expect
                                       |
    legal.py     numbers --run--> got  |  expect --> Near (compare.py): value, allowance
                                  '----+----'
    calls/*.py   Call (wrong.py): a legal call --one argument spoilt--> illegal.py: what is raised?

`run.py` spreads cases over rooms, `findings.py` keeps what went wrong, `__main__.py` prints one
line of JSON.

## What counts as legal

What the page Rules of the documentation and the docstrings allow, and no more:

- index spaces of rank 1 to 6 and of 1 to 2**30 cells per axis, fewer than 2**31 on one side where
  cells are numbered; means on integers, halves, edges and one float beside them, inside the space.
  Above 2**24 a float32 cannot tell cells apart: there shares have to be finite and to sum to 1, but
  are not compared;
- variances from 1e-12 to 1e12 (in float16 what that holds), mixed in one tuple; values and payloads
  of any sign, zeros and ties among them, of magnitudes that a sum of squares in float32 holds;
- float32, bfloat16, float16, and integers where a number may be one; integers only where integers
  are meant; arrays of JAX;
- segment, expert and row numbers from -1 to n, both of which mark padding; index tuples outside of
  their shape where these are dropped; masks with at least one true entry where the docstring asks
  for one; counts from 0 where a count may be 0;
- -inf as a logit, +-inf as a key of a sort. No NaN goes in: what it has to do is tested by the
  table of public functions, one column of which spoils every argument.

A result is right if it is within what the rounding of float32 explains: allowances come from the
condition of each case (the rounding of every difference is carried through the softmax), not from
one loose tolerance. Derivatives are compared where the oracle has them in closed form; at places
where one is not defined (equal keys, halfway round a circle, the kink of a clip) they have to be
finite.

Functions that draw are asked for what they drew, and the oracle goes on from there; what is drawn
is checked for what every draw has to fulfil.

## What counts as illegal

A legal call in which one argument or option is spoilt: another type (None, text, a dict, a complex
array, a ragged list, a class), another rank or length, another kind of number (floats for integers,
bools for counts), a number out of range, a misspelt choice or name, two arguments in each other's
place. It has to raise a `ValueError` or `TypeError` that says "found ...; expected ...; ...". Where
nothing is raised it is silent, anything else that is raised is obscure. Python's own `TypeError`
for a name that is not in the signature tells enough.
"""
