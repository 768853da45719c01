#include "tests/paths.h"

namespace tandem {

extern const char* const kSourceDir = TANDEM_SOURCE_DIR;
extern const char* const kTandemProgram = TANDEM_PROGRAM;

}  // namespace tandem
