"""Dijets by Pythia 8 and fastjet, a batch of collisions at a time; needs the extra `simulation`."""

import awkward as ak
import fastjet
import numpy as np
import pythia8mc

PROTONS = (
    "Print:quiet = on",
    "Beams:eCM = 13000",
    # As in the bundled jets: masses of jets are those of what was produced in the hard process.
    "PartonLevel:MPI = off",
)
NEUTRINOS = (12, 14, 16)
ETA_MAX = 2.5
LEADING_PT, SECOND_PT = 1200.0, 500.0
"""Smallest transverse momenta of the two jets [GeV]."""
_LEAST_CONSTITUENTS = 4  # with fewer tau_2 is zero, or as good as


def background_settings(masses: tuple[float, float], flattening: float) -> list[str]:
    """QCD dijets with an invariant mass of the two partons in a range [GeV]."""
    pt_min = 0.9 * LEADING_PT
    return [
        "HardQCD:all = on",
        f"PhaseSpace:pTHatMin = {pt_min}",
        f"PhaseSpace:mHatMin = {masses[0]}",
        f"PhaseSpace:mHatMax = {masses[1]}",
        "PhaseSpace:bias2Selection = on",
        f"PhaseSpace:bias2SelectionPow = {flattening}",
        f"PhaseSpace:bias2SelectionRef = {pt_min}",
    ]


def signal_settings(m_w: float, m_x: float, m_y: float) -> list[str]:
    """W' -> X Y, X and Y scalars that decay to pairs of light quarks; masses in GeV.

    All are narrow: what is seen of their widths is that of the jets.
    """
    width = 0.003
    names = {"34": m_w, "9000001": m_x, "9000002": m_y}
    # Name, antiparticle, 2 J + 1, three times the charge, colour.
    kinds = {"9000001": "X+ X- 1 3 0", "9000002": "Y0 void 1 0 0"}
    quarks = {"9000001": [(2, -1), (4, -3)], "9000002": [(1, -1), (2, -2), (3, -3), (4, -4)]}
    settings = ["NewGaugeBoson:ffbar2Wprime = on"]
    for code, mass in names.items():
        if code in kinds:
            settings.append(f"{code}:all = {kinds[code]} {mass} {width * mass}")
        limits = {"m0": mass, "mWidth": width * mass, "mMin": 0.9 * mass, "mMax": 1.1 * mass}
        settings += [f"{code}:{key} = {value}" for key, value in limits.items()]
        settings.append(f"{code}:doForceWidth = on")
        # 101: the branching ratio as given.
        for pair in quarks.get(code, []):
            share = 1 / len(quarks[code])
            settings.append(f"{code}:addChannel = 1 {share} 101 {pair[0]} {pair[1]}")
    return [*settings, "34:oneChannel = 1 1 101 9000001 9000002"]


def features(settings: list[str], seed: int, num: int, radius: float) -> np.ndarray:
    """m_jj, m_j1, dm [TeV], tau21_1 and tau21_2 of those of `num` collisions that have two jets.

    Jets: anti-kT of all stable particles but neutrinos with |eta| < 2.5, the leading one above 1.2
    TeV and the second above 0.5 TeV. N-subjettiness with beta = 1 and axes that are minimised from
    exclusive-kT ones. Events with a jet of fewer than four particles are left out.
    """
    generator = pythia8mc.Pythia("", False)
    for line in (*PROTONS, "Random:setSeed = on", f"Random:seed = {seed}", *settings):
        if not generator.readString(line):
            raise ValueError(f"Pythia does not know the setting {line!r}; other versions may")
    if not generator.init():
        raise ValueError("Pythia could not be started with these masses; try others")
    parts = [
        _jets(generator.nextBatch(min(1000, num - i)).prt, radius) for i in range(0, num, 1000)
    ]
    return np.concatenate(parts)


def _jets(particles: ak.Array, radius: float) -> np.ndarray:
    stable = particles[particles.status > 0]
    for code in NEUTRINOS:
        stable = stable[abs(stable.id) != code]
    p = stable.p
    p = p[abs(p.pz) < np.sinh(ETA_MAX) * np.hypot(p.px, p.py)]
    vectors = ak.zip({"px": p.px, "py": p.py, "pz": p.pz, "E": p.e}, with_name="Momentum4D")
    jet_definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    clusters = fastjet.ClusterSequence(vectors, jet_definition)
    jets, constituents = clusters.inclusive_jets(SECOND_PT), clusters.constituents(SECOND_PT)
    two = ak.num(jets) >= 2
    order = ak.argsort(np.hypot(jets.px, jets.py)[two], ascending=False)[:, :2]
    jets, constituents = jets[two][order], constituents[two][order]
    used = np.hypot(jets.px, jets.py)[:, 0] > LEADING_PT
    used = used & ak.all(ak.num(constituents, axis=2) >= _LEAST_CONSTITUENTS, axis=1)
    jets, constituents = jets[used], constituents[used]
    momenta = np.stack([ak.to_numpy(jets[k]) for k in ("E", "px", "py", "pz")], axis=-1)
    masses, total = _masses(momenta), _masses(momenta.sum(axis=1))
    of_jets = fastjet.JetDefinition(fastjet.kt_algorithm, radius)
    inside = fastjet.ClusterSequence(ak.flatten(constituents), of_jets)
    # In the normalised measure the radius divides out of the ratio.
    tau = ak.to_numpy(inside.njettiness(njets=[1, 2], axes_definition="OnePass_KT_Axes", R0=radius))
    ratios = (tau[:, 1] / tau[:, 0]).reshape(-1, 2)
    lighter = np.argsort(masses, axis=1)
    masses, ratios = (np.take_along_axis(a, lighter, axis=1) for a in (masses, ratios))
    columns = (total / 1e3, masses[:, 0] / 1e3, (masses[:, 1] - masses[:, 0]) / 1e3, *ratios.T)
    # A local minimum of tau_2 can in rare cases be above tau_1.
    return np.stack(columns, axis=1)[(ratios <= 1).all(axis=1)].astype(np.float32)


def _masses(momenta: np.ndarray) -> np.ndarray:
    energy, *p = np.moveaxis(momenta, -1, 0)
    return np.sqrt(np.maximum(energy**2 - sum(k**2 for k in p), 0))
