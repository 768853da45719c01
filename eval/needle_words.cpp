#include "eval/needle_words.h"

#include <array>

namespace tandem {
namespace {

constexpr std::array<std::string_view, 99> kCities = {
    "Accra",     "Algiers",   "Amman",      "Amsterdam", "Ankara",    "Antwerp",    "Athens",
    "Auckland",  "Baghdad",   "Baku",       "Bangkok",   "Barcelona", "Beirut",     "Belgrade",
    "Bergen",    "Berlin",    "Bogota",     "Bologna",   "Boston",    "Bratislava", "Brisbane",
    "Brussels",  "Bucharest", "Budapest",   "Cairo",     "Calgary",   "Caracas",    "Casablanca",
    "Chicago",   "Colombo",   "Copenhagen", "Dakar",     "Damascus",  "Delhi",      "Denver",
    "Dhaka",     "Doha",      "Dresden",    "Dubai",     "Dublin",    "Edinburgh",  "Florence",
    "Geneva",    "Genoa",     "Glasgow",    "Granada",   "Hamburg",   "Hanoi",      "Harare",
    "Havana",    "Helsinki",  "Houston",    "Istanbul",  "Jakarta",   "Kampala",    "Karachi",
    "Kathmandu", "Khartoum",  "Kigali",     "Kingston",  "Krakow",    "Kyoto",      "Lagos",
    "Lahore",    "Lima",      "Lisbon",     "London",    "Luanda",    "Lusaka",     "Lyon",
    "Madrid",    "Manila",    "Maputo",     "Melbourne", "Miami",     "Milan",      "Minsk",
    "Montreal",  "Moscow",    "Mumbai",     "Munich",    "Nairobi",   "Naples",     "Osaka",
    "Oslo",      "Ottawa",    "Paris",      "Prague",    "Quito",     "Rabat",      "Riga",
    "Rome",      "Seoul",     "Sofia",      "Sydney",    "Tallinn",   "Tokyo",      "Vienna",
    "Warsaw"};

}  // namespace

std::span<const std::string_view> needle_cities() { return kCities; }

std::string yoco_needle(std::string_view city, std::string_view number) {
  return yoco_answer_prefix(city) + std::string(number) + " . ";
}

std::string yoco_question(std::string_view city) {
  return "What is the special magic " + std::string(city) + " number? ";
}

std::string yoco_answer_prefix(std::string_view city) {
  return "The special magic " + std::string(city) + " number is ";
}

}  // namespace tandem
