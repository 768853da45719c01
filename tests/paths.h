#pragma once

namespace tandem {

// Where things are. In one small source of their own, so that all other tests compile to the same objects in every folder and build.
extern const char* const kSourceDir;      ///< the repository
extern const char* const kTandemProgram;  ///< empty where it is not built

}  // namespace tandem
