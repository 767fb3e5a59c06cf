// Nothing: precompiled.h needs a translation unit to be compiled for.
