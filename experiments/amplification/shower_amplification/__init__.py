"""How many Geant4 showers a CaloDREAM's showers are worth."""
