"""Programs that show Polos at work, each in a folder with a README."""
