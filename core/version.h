#pragma once

namespace tandem {

inline constexpr const char* kTandemVersion = "0.1.0";  ///< as in CMakeLists.txt

}  // namespace tandem
