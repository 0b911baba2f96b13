"""Map of jets' features against autodiff."""

import jax
import numpy as np
import pytest

from jgen.jets import feature_map, read_features, sample_path


def test_the_map_against_autodiff_and_at_known_points():
    bijector = feature_map()
    x = read_features(sample_path()).features[:20]
    x = np.concatenate([x, [[500.01, 20, 0.5, 0.5], [999.99, 20, 0.5, 0.5]]]).astype(np.float32)

    @jax.jit
    @jax.vmap
    def there_and_back(x):
        z, log_det = bijector.forward(x)
        jacobian = jax.jacfwd(lambda x: bijector.forward(x)[0])(x)
        back, log_det_back = bijector.inverse(z)
        return z, log_det, jacobian, back, log_det_back

    z, log_det, jacobian, back, log_det_back = there_and_back(x)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, rtol=1e-4)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-3)
    np.testing.assert_allclose(back, x, rtol=1e-5)
    # In the middle of the window the odds are even; a mass of e GeV is one.
    middle = bijector.forward(np.float32([750, np.e, 0.4, 0.7]))[0]
    np.testing.assert_allclose(middle, [0, 1, 0.4, 0.7], atol=1e-6)


def test_an_empty_window():
    with pytest.raises(ValueError, match="pt_range must be an interval"):
        feature_map((500.0, 400.0))
