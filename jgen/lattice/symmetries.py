"""The symmetries of a square periodic lattice: translations, the square's rotations, reflections.

Together with phi -> -phi they leave the action of scalar fields as it is.
"""

import numpy as np
from jaxtyping import Float, Int


def displacement_orbits(length: int) -> Int[np.ndarray, "l l"]:
    """Number of the orbit of every displacement under the eight symmetries of the square (D4).

    A kernel that has one value an orbit, C(x, y) = c[orbit(x - y)], commutes with translations,
    rotations and reflections, and every such kernel has this form. Orbit 0 is displacement zero.

    Args:
      length: sites along one side.
    """
    steps = np.arange(length)
    distance = np.minimum(steps, length - steps)  # reflections; the torus closes after `length`
    first, second = np.meshgrid(distance, distance, indexing="ij")
    pair = np.minimum(first, second) * length + np.maximum(first, second)
    return np.unique(pair, return_inverse=True)[1].reshape(length, length)


def kernel_orbits(length: int) -> Int[np.ndarray, "v v"]:
    """Orbit of the displacement between any two of the v = length^2 sites, row after row."""
    orbits = displacement_orbits(length)
    row, column = np.divmod(np.arange(length**2), length)
    return orbits[
        (row[:, None] - row) % length,
        (column[:, None] - column) % length,
    ]


def kernel_from_momenta(length: int) -> Float[np.ndarray, "o o"]:
    """Matrix from eigenvalues of a symmetric kernel to its values, both by orbit.

    Momenta 2 pi k / L have the orbits of displacements: c(r) = sum_k exp(2 pi i k r / L) e(k) / V.
    """
    orbits = displacement_orbits(length)
    num = int(orbits.max()) + 1
    values = [np.fft.ifft2(orbits == orbit).real for orbit in range(num)]
    first = [np.argmax(orbits.ravel() == orbit) for orbit in range(num)]
    return np.stack(values).reshape(num, -1)[:, first]
