"""A sampling calorimeter of concentric cylinders in Geant4, one incident particle at a time.

The geometry, the way of the particle and the use of post-step positions are those of Geant4's
extended example Par04, which made the datasets 2 and 3 of the CaloChallenge (arXiv:2410.21611).
Importing this module loads Geant4, and a process can hold one `Simulation` only.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import geant4_pybind as g4
import numpy as np
from jaxtyping import Float

from experiments.simulate.detector import Detector

Physics = Literal["FTFP_BERT", "G4EmStandardPhysics"]


class Entering(NamedTuple):
    """An incident particle at the calorimeter's surface.

    Attributes:
      energy: kinetic energy [MeV].
      position: x, y, z [mm].
      direction: of flight, a unit vector.
      random: a whole number below 2^31 of Geant4's random engine.
    """

    energy: float
    position: tuple[float, float, float]
    direction: tuple[float, float, float]
    random: int


class Simulation:
    """Geant4, initialised; `shower` runs one event, `replace` one without the calorimeter."""

    def __init__(
        self,
        detector: Detector,
        particle: str,
        physics: Physics,
        cut: float,
        *,
        replaced: bool = False,
    ):
        """Build the calorimeter and its physics tables, which takes seconds.

        Args:
          detector: the calorimeter.
          particle: Geant4's name of the incident particle.
          physics: the physics list.
          cut: production cut of secondaries [mm].
          replaced: whether models are to make the showers. Geant4 then asks at every step, which
            takes time.

        Raises:
          ValueError: if a material or the particle is unknown to Geant4.
        """
        for material in (detector.absorber, detector.active):
            if g4.G4NistManager.Instance().FindOrBuildMaterial(material) is None:
                raise ValueError(
                    f"Geant4 knows no material {material!r}; give a name of its NIST database, "
                    "such as G4_W, G4_Pb, G4_Si, G4_lAr or G4_PLASTIC_SC_VINYLTOLUENE"
                )
        self._manager = g4.G4RunManager()
        self._calorimeter = _Calorimeter(detector)
        self._manager.SetUserInitialization(self._calorimeter)
        self._physics = _make_physics(physics)
        self._manager.SetUserInitialization(self._physics)
        # Geant4 knows its particles only once it has a physics list.
        self._gun = _Gun(particle, detector.inner_radius)
        self._actions = _Actions(self._gun, _Surface() if replaced else None)
        self._manager.SetUserInitialization(self._actions)
        self._manager.Initialize()
        g4.G4UImanager.GetUIpointer().ApplyCommand(f"/run/setCut {cut} mm")
        self._manager.BeamOn(0)  # builds the tables

    def shower(self, energy: float, seeds: tuple[int, int]) -> Float[np.ndarray, "n 4"]:
        """Simulate one incident particle.

        Args:
          energy: its kinetic energy [MeV].
          seeds: of Geant4's random engine, positive and below 2^32; the shower depends on them
            and on nothing that was simulated before.

        Returns:
          Deposits in the active layers: energy [MeV] and x, y, z [mm] of the step's end. The
          particle starts at (inner radius, 0, 0) and flies along x; the cylinder's axis is z.
        """
        deposits = self._calorimeter.sensor.deposits
        deposits.clear()
        self._run(energy, seeds)
        return np.array(deposits, np.float64).reshape(-1, 4)

    def replace(
        self, energy: float, seeds: tuple[int, int], model: Callable[[Entering], None]
    ) -> None:
        """Let a model make the shower: Geant4 stops the particle where it enters the calorimeter.

        As in Geant4's own fast simulation the particle is killed at the envelope, the surface of
        the first absorber, and the model is called there, inside of the event.

        Args:
          energy: kinetic energy of the particle [MeV].
          seeds: as of `shower`.
          model: called once.

        Raises:
          RuntimeError: if the particle does not enter, or this is a simulation without `replaced`.
        """
        if self._actions.surface is None:
            raise RuntimeError("models need a Simulation(..., replaced=True)")
        self._actions.surface.model = model
        try:
            self._run(energy, seeds)
            if self._actions.surface.model is not None:
                raise RuntimeError("the particle has not entered the calorimeter")
        finally:
            self._actions.surface.model = None

    def _run(self, energy, seeds):
        self._gun.energy = energy
        g4.G4Random.setTheSeeds([*seeds, 0])  # ends with the first zero
        self._manager.BeamOn(1)


def version() -> str:
    """Version of Geant4, such as "11.4.1"."""
    number = g4.G4VERSION_NUMBER
    return f"{number // 100}.{number // 10 % 10}.{number % 10}"


class _Calorimeter(g4.G4VUserDetectorConstruction):
    """Absorber and active cylinders in turn, the absorber first."""

    def __init__(self, detector: Detector):
        super().__init__()
        self._detector = detector
        self._active = []

    def Construct(self):
        d, find = self._detector, g4.G4NistManager.Instance().FindOrBuildMaterial
        vacuum = find("G4_Galactic")
        outer = d.inner_radius + d.depth
        box = g4.G4Box("World", 1.1 * outer, 1.1 * outer, 1.1 * d.half_length)
        world = g4.G4LogicalVolume(box, vacuum, "World")
        placed = g4.G4PVPlacement(None, g4.G4ThreeVector(), world, "World", None, False, 0)
        radius = d.inner_radius
        for i in range(d.num_layers):
            for material, thickness in (
                (d.absorber, d.absorber_thickness),
                (d.active, d.active_thickness),
            ):
                tube = g4.G4Tubs(
                    "Layer", radius, radius + thickness, d.half_length, -d.opening / 2, d.opening
                )
                layer = g4.G4LogicalVolume(tube, find(material), "Layer")
                g4.G4PVPlacement(None, g4.G4ThreeVector(), layer, "Layer", world, False, i)
                radius += thickness
            self._active.append(layer)
        return placed

    def ConstructSDandField(self):
        self.sensor = _Sensor()
        g4.G4SDManager.GetSDMpointer().AddNewDetector(self.sensor)
        for layer in self._active:
            layer.SetSensitiveDetector(self.sensor)


class _Sensor(g4.G4VSensitiveDetector):
    """Collects the deposits of an event."""

    def __init__(self):
        super().__init__("Active")
        self.deposits = []

    def ProcessHits(self, step, _):
        energy = step.GetTotalEnergyDeposit()
        if energy > 0.0:
            position = step.GetPostStepPoint().GetPosition()
            self.deposits.append((energy, position.x, position.y, position.z))
        return True


class _Gun(g4.G4VUserPrimaryGeneratorAction):
    """One particle along x, just before the inner surface."""

    def __init__(self, particle: str, inner_radius: float):
        super().__init__()
        self.energy = 0.0
        definition = g4.G4ParticleTable.GetParticleTable().FindParticle(particle)
        if definition is None:
            raise ValueError(f"Geant4 knows no particle {particle!r}")
        self._gun = g4.G4ParticleGun(1)
        self._gun.SetParticleDefinition(definition)
        self._gun.SetParticleMomentumDirection(g4.G4ThreeVector(1, 0, 0))
        self._gun.SetParticlePosition(g4.G4ThreeVector(inner_radius - 1e-3, 0, 0))

    def GeneratePrimaries(self, event):
        self._gun.SetParticleEnergy(self.energy)
        self._gun.GeneratePrimaryVertex(event)


class _Surface(g4.G4UserSteppingAction):
    """Stops what enters the calorimeter, where there is a model, and calls it once."""

    def __init__(self):
        super().__init__()
        self.model = None

    def UserSteppingAction(self, step):
        if self.model is None:
            return
        track, point = step.GetTrack(), step.GetPostStepPoint()
        volume = track.GetNextVolume()
        if volume is None or volume.GetName() != "Layer":
            return
        track.SetTrackStatus(g4.fStopAndKill)
        model, self.model = self.model, None
        where, flight = point.GetPosition(), point.GetMomentumDirection()
        position, direction = ((v.x, v.y, v.z) for v in (where, flight))
        random = int(g4.G4UniformRand() * 2**31)
        model(Entering(point.GetKineticEnergy(), position, direction, random))


class _Actions(g4.G4VUserActionInitialization):
    """Hands the gun and, if there is one, the surface to Geant4."""

    def __init__(self, gun: _Gun, surface: _Surface | None):
        super().__init__()
        self._gun, self.surface = gun, surface

    def Build(self):
        self.SetUserAction(self._gun)
        if self.surface is not None:
            self.SetUserAction(self.surface)


class _ElectromagneticPhysics(g4.G4VModularPhysicsList):
    """The electromagnetic part of FTFP_BERT alone."""

    def __init__(self):
        super().__init__()
        self.RegisterPhysics(g4.G4EmStandardPhysics())


def _make_physics(name: Physics):
    """The physics list, without its pages of tables on the screen."""
    physics = g4.FTFP_BERT() if name == "FTFP_BERT" else _ElectromagneticPhysics()
    physics.SetVerboseLevel(0)
    # The lists reset these when they are made.
    g4.G4EmParameters.Instance().SetVerbose(0)
    g4.G4HadronicParameters.Instance().SetVerboseLevel(0)
    return physics
